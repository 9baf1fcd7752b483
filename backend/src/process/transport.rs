//! Messages of bytes between ranks.

use std::sync::Arc;
use std::time::Duration;

use crate::{GroupKind, Lane};

/// Which collectives wait for each other. Those of the data group have a track of their own: gradients are reduced while the backward goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// All others.
    Main,
    /// Those of the data group.
    Data,
}

impl Track {
    /// That of a kind of group.
    pub const fn of(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Data => Track::Data,
            _ => Track::Main,
        }
    }
}

/// A way between two ranks on which messages keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The first exchange of a collective, on which ranks also compare what they call.
    First(Track),
    /// What follows it. A way of its own, so that the first exchange of the next piece may overtake.
    Second(Track),
    /// Point-to-point messages.
    Lane(Lane),
}

impl Channel {
    /// All of them; [`index`](Self::index) is the place in here.
    pub const ALL: [Channel; 6] = [
        Channel::First(Track::Main),
        Channel::Second(Track::Main),
        Channel::First(Track::Data),
        Channel::Second(Track::Data),
        Channel::Lane(Lane::Forward),
        Channel::Lane(Lane::Backward),
    ];

    /// The number that stands for it on the wire.
    pub const fn index(self) -> usize {
        match self {
            Channel::First(Track::Main) => 0,
            Channel::Second(Track::Main) => 1,
            Channel::First(Track::Data) => 2,
            Channel::Second(Track::Data) => 3,
            Channel::Lane(Lane::Forward) => 4,
            Channel::Lane(Lane::Backward) => 5,
        }
    }
}

/// What is sent: shared, because the same bytes often go to several ranks.
pub type Message = Arc<Vec<u8>>;

/// Why a message could not be sent or did not come. The communicator makes an [`Error`](crate::Error) of it, which names the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing came in time.
    Silence,
    /// A rank has failed or left.
    Failed {
        /// The first rank at fault.
        rank: usize,
        /// Its own words, or what was seen of its end.
        cause: String,
    },
}

/// One rank's end of the ways to all others. Dropping it says goodbye to them.
pub trait Transport: Send + Sync + 'static {
    /// This rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// Sends a message; returns at once, whatever the receiver does.
    ///
    /// # Errors
    /// [`Interrupted::Failed`] once any rank has failed, or if the receiver has left.
    fn send(&self, to: usize, channel: Channel, message: Message) -> Result<(), Interrupted>;

    /// The oldest message that `from` has sent here on that channel. What has arrived is given out even after a failure.
    ///
    /// # Errors
    /// [`Interrupted::Silence`] after `timeout`; [`Interrupted::Failed`] once any rank has failed, or if the sender has left.
    fn recv(&self, from: usize, channel: Channel, timeout: Duration) -> Result<Vec<u8>, Interrupted>;

    /// The first failure that this rank has heard of: who, and its words.
    fn failure(&self) -> Option<(usize, String)>;

    /// Tells the other ranks that this one has failed and why, unless a failure is known already.
    fn fail(&self, cause: &str);
}

/// A transport that outlives one communicator.
impl Transport for Arc<dyn Transport> {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn world_size(&self) -> usize {
        (**self).world_size()
    }

    fn send(&self, to: usize, channel: Channel, message: Message) -> Result<(), Interrupted> {
        (**self).send(to, channel, message)
    }

    fn recv(&self, from: usize, channel: Channel, timeout: Duration) -> Result<Vec<u8>, Interrupted> {
        (**self).recv(from, channel, timeout)
    }

    fn failure(&self) -> Option<(usize, String)> {
        (**self).failure()
    }

    fn fail(&self, cause: &str) {
        (**self).fail(cause);
    }
}
