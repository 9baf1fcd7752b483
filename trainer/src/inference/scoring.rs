//! Log-likelihoods of continuations.
//!
//! The convention is that of lm-evaluation-harness: the context's trailing blanks belong to the continuation; both are tokenized together, and the continuation is what
//! follows the context's own tokens; an empty context is the end-of-text token; of what is too long the model is given the last tokens that it has positions for. A continuation that is
//! longer than that loses its own beginning too: the tokens left are scored (the harness refuses these).
//!
//! Requests that begin alike are read once: sorted by their tokens, neighbours form groups whose common beginning stands in a slot of its own.

use std::collections::VecDeque;

use data::tokenizer::Tokenizer;
use eval::scorer::Scored;

use super::step::{Answer, Capacity, Model, Step, Want};
use crate::{Error, Result};

/// A continuation in its context, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// What the model reads: the context and the continuation but for its last token.
    pub input: Vec<u32>,
    /// The continuation, as far as it fits: what the last so many places of the input are asked about.
    pub targets: Vec<u32>,
    /// Tokens at the beginning that did not fit.
    pub lost: usize,
}

/// What Python's `str.rstrip` takes off.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

impl Encoded {
    /// Encodes a request for a model of sequences of `length` tokens.
    ///
    /// # Errors
    /// The continuation has no token.
    pub fn new(tokenizer: &Tokenizer, context: &str, continuation: &str, length: usize) -> Result<Self> {
        let kept = context.trim_end_matches(is_blank);
        let moved = format!("{}{continuation}", &context[kept.len()..]);
        let (context, targets) = if context.is_empty() {
            (vec![tokenizer.eod()], tokenizer.encode(continuation)?)
        } else {
            let context = tokenizer.encode(kept)?;
            let mut whole = tokenizer.encode(&format!("{kept}{moved}"))?;
            let targets = whole.split_off(context.len().min(whole.len()));
            (if context.is_empty() { vec![tokenizer.eod()] } else { context }, targets)
        };
        match targets.is_empty() {
            true => Err(Error::user("a continuation of no tokens").remedy("give at least one token")),
            false => Ok(Self::of_tokens(&context, &targets, length.max(1))),
        }
    }

    /// The last `length + 1` tokens: the model reads all of them but the last, and is asked about those that the continuation has behind the first. Neither part is empty.
    fn of_tokens(context: &[u32], continuation: &[u32], length: usize) -> Self {
        let mut input = [context, continuation].concat();
        let lost = input.len().saturating_sub(length + 1);
        input.drain(..lost);
        let targets = input[input.len() - continuation.len().min(input.len() - 1)..].to_vec();
        input.pop();
        Self { input, targets, lost }
    }

    /// How much of the input may be shared: nothing is asked about it.
    fn sharable(&self) -> usize {
        self.input.len() - self.targets.len()
    }
}

/// Requests with a common beginning.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    members: Vec<usize>,
    shared: usize,
}

/// Groups of at most `most` requests, such that every further member of a group saves tokens.
fn groups(requests: &[Encoded], most: usize) -> Vec<Group> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by(|&a, &b| requests[a].input.cmp(&requests[b].input).then(a.cmp(&b)));
    let common = |a: usize, b: usize| {
        requests[a].input.iter().zip(&requests[b].input).take_while(|(a, b)| a == b).count()
    };
    let mut groups: Vec<Group> = Vec::new();
    for (at, &i) in order.iter().enumerate() {
        let request = &requests[i];
        let with_next = order.get(at + 1).map_or(0, |&next| common(i, next).min(request.sharable()));
        if let Some(group) = groups.last_mut().filter(|group| group.members.len() < most) {
            let shared = common(group.members[0], i).min(request.sharable()).min(group.shared);
            let count = group.members.len();
            // Shared tokens are read once instead of by each; a lone request is left alone where the next one is more like this.
            if shared * count > group.shared * (count - 1) && (count > 1 || shared >= with_next) {
                group.members.push(i);
                group.shared = shared;
                continue;
            }
        }
        groups.push(Group { members: vec![i], shared: request.sharable() });
    }
    groups
}

/// How well each token is known so far.
struct Tally {
    scored: Scored,
    left: usize,
}

/// Steps on their way.
struct Pending<'a> {
    model: &'a mut dyn Model,
    capacity: Capacity,
    step: Step,
    targets: Vec<u32>,
    /// Whose each row of the step is.
    owners: Vec<usize>,
    on_their_way: VecDeque<Vec<usize>>,
    free: Vec<u32>,
    /// Slots that are free once the step is begun.
    freed: Vec<u32>,
    tallies: Vec<Tally>,
}

/// Scores the requests; `done` hears of each one as soon as it is known.
///
/// # Errors
/// Those of the model and of `done`.
pub fn score(
    model: &mut dyn Model,
    requests: &[Encoded],
    mut done: impl FnMut(usize, &Scored) -> Result<()>,
) -> Result<()> {
    let capacity = model.capacity();
    let none = Scored { log_likelihood: 0.0, tokens: 0, is_greedy: true };
    let tally = |request: &Encoded| Tally { scored: none, left: request.targets.len() };
    let mut pending = Pending {
        capacity,
        step: Step::default(),
        targets: Vec::new(),
        owners: Vec::new(),
        on_their_way: VecDeque::new(),
        free: (0..capacity.slots as u32).collect(),
        freed: Vec::new(),
        tallies: requests.iter().map(tally).collect(),
        model,
    };
    // One slot of a group is for what is shared.
    for group in groups(requests, capacity.slots.saturating_sub(1).max(1)) {
        let shared = if group.members.len() > 1 { group.shared } else { 0 };
        let slots = pending.take(group.members.len() + usize::from(shared > 0), &mut done)?;
        let (own, common) = slots.split_at(group.members.len());
        let beginning = common.first().copied();
        if let Some(slot) = beginning {
            for (position, &token) in requests[group.members[0]].input[..shared].iter().enumerate() {
                pending.push(token, [slot, position as u32, u32::MAX, 0], None, &mut done)?;
            }
        }
        for (&member, &slot) in group.members.iter().zip(own) {
            let request = &requests[member];
            for (position, &token) in request.input.iter().enumerate().skip(shared) {
                let place = [slot, position as u32, beginning.unwrap_or(u32::MAX), shared as u32];
                let target = position.checked_sub(request.sharable()).map(|i| (member, request.targets[i]));
                pending.push(token, place, target, &mut done)?;
            }
        }
        pending.freed.extend(slots);
    }
    pending.submit(&mut done)?;
    while !pending.on_their_way.is_empty() {
        pending.collect(&mut done)?;
    }
    Ok(())
}

impl Pending<'_> {
    /// So many slots that nobody reads any more.
    fn take(&mut self, count: usize, done: &mut dyn FnMut(usize, &Scored) -> Result<()>) -> Result<Vec<u32>> {
        if self.free.len() < count {
            self.submit(done)?;
        }
        match self.free.len().checked_sub(count) {
            Some(rest) => Ok(self.free.split_off(rest)),
            None => Err(Error::other("a group of requests needs more slots than there are")),
        }
    }

    fn push(
        &mut self,
        token: u32,
        place: model::Place,
        target: Option<(usize, u32)>,
        done: &mut dyn FnMut(usize, &Scored) -> Result<()>,
    ) -> Result<()> {
        let full = |len: usize, most: usize| len == most;
        let rows_full = target.is_some() && full(self.step.rows.len(), self.capacity.rows);
        if full(self.step.tokens.len(), self.capacity.tokens) || rows_full {
            self.submit(done)?;
        }
        if let Some((owner, target)) = target {
            self.step.rows.push(self.step.tokens.len() as u32);
            self.owners.push(owner);
            self.targets.push(target);
        }
        self.step.tokens.push(token);
        self.step.places.push(place);
        Ok(())
    }

    fn submit(&mut self, done: &mut dyn FnMut(usize, &Scored) -> Result<()>) -> Result<()> {
        if !self.step.tokens.is_empty() {
            self.step.want = Want::Scores(std::mem::take(&mut self.targets));
            self.model.submit(&self.step)?;
            self.step = Step::default();
            self.on_their_way.push_back(std::mem::take(&mut self.owners));
        }
        self.free.append(&mut self.freed);
        while self.on_their_way.len() >= self.capacity.in_flight.max(1) {
            self.collect(done)?;
        }
        Ok(())
    }

    fn collect(&mut self, done: &mut dyn FnMut(usize, &Scored) -> Result<()>) -> Result<()> {
        let owners = self.on_their_way.pop_front().unwrap_or_default();
        let Answer::Scores(scores) = self.model.collect()? else {
            return Err(Error::other("logits where scores were asked for"));
        };
        for (owner, score) in owners.into_iter().zip(scores) {
            let Tally { scored, left } = &mut self.tallies[owner];
            scored.log_likelihood += f64::from(score.log_likelihood);
            scored.tokens += 1;
            scored.is_greedy &= score.is_greedy;
            *left -= 1;
            if *left == 0 {
                done(owner, scored)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(context: &[u32], targets: &[u32]) -> Encoded {
        Encoded::of_tokens(context, targets, usize::MAX - 1)
    }

    /// lm-evaluation-harness 0.4.13, `HFLM._loglikelihood_tokens`: `inp = (context + continuation)[-(max_length + 1):][:-1]`, and the continuation is compared with the last
    /// `len(continuation)` places of what comes of it; it asserts that there are as many. Where there are not, as many as there are.
    #[test]
    fn what_is_too_long_is_cut_as_the_harness_cuts_it() {
        for (context, continuation, length) in
            (1..9).flat_map(|a| (1..9).flat_map(move |b| (1..12).map(move |length| (a, b, length))))
        {
            let (own, asked): (Vec<u32>, Vec<u32>) =
                ((0..context).collect(), (100..100 + continuation).collect());
            let Encoded { input, targets, lost } = Encoded::of_tokens(&own, &asked, length);
            let whole = [own, asked.clone()].concat();
            let kept = &whole[whole.len().saturating_sub(length + 1)..];
            let words = format!("{context} {continuation} {length}");
            assert_eq!(input, kept[..kept.len() - 1], "{words}");
            assert_eq!(lost, whole.len() - kept.len(), "{words}");
            match asked.len() <= length {
                true => assert_eq!(targets, asked, "{words}"),
                false => assert_eq!(targets, asked[asked.len() - length..], "{words}"),
            }
            // Each target stands behind the place that is asked about it.
            let first = input.len() - targets.len();
            assert_eq!(targets, kept[first + 1..], "{words}");
        }
    }

    #[test]
    fn what_begins_alike_is_a_group() {
        let context: Vec<u32> = (0..20).collect();
        let requests = [
            request(&context, &[30, 31]),
            request(&[5, 6], &[7]),
            request(&context, &[40]),
            request(&context[..19], &[50, 51, 52]),
            request(&context, &[30, 32, 33]),
        ];
        // Nothing is asked about 19 tokens of the context, nor about 18 of the shorter one.
        let expected =
            vec![Group { members: vec![2, 0, 4, 3], shared: 18 }, Group { members: vec![1], shared: 1 }];
        assert_eq!(groups(&requests, 9), expected);
        assert_eq!(
            groups(&requests, 2).iter().map(|group| group.members.len()).collect::<Vec<_>>(),
            [2, 2, 1]
        );
    }

    /// A model whose answers are functions of the tokens that a row sees, put together from what was said of slots alone.
    struct Witness {
        capacity: Capacity,
        slots: Vec<Vec<Option<u32>>>,
        answers: VecDeque<Answer>,
        read: usize,
    }

    impl Model for Witness {
        fn capacity(&self) -> Capacity {
            self.capacity
        }

        fn submit(&mut self, step: &Step) -> Result<()> {
            assert!(step.tokens.len() <= self.capacity.tokens && step.rows.len() <= self.capacity.rows);
            self.read += step.tokens.len();
            for (&token, place) in step.tokens.iter().zip(&step.places) {
                self.slots[place[0] as usize][place[1] as usize] = Some(token);
            }
            let Want::Scores(targets) = &step.want else { panic!("scores are asked for") };
            let score = |(&row, &target): (&u32, &u32)| {
                let [slot, position, shared_slot, shared] = step.places[row as usize];
                let seen = (0..=position).map(|k| {
                    let slot = if k < shared { shared_slot } else { slot };
                    self.slots[slot as usize][k as usize].expect("it was read before")
                });
                let log_likelihood = likelihood(&seen.collect::<Vec<_>>(), target);
                model::Score { log_likelihood, is_greedy: target % 5 > 0 }
            };
            self.answers.push_back(Answer::Scores(step.rows.iter().zip(targets).map(score).collect()));
            assert!(self.answers.len() <= self.capacity.in_flight);
            Ok(())
        }

        fn collect(&mut self) -> Result<Answer> {
            self.answers.pop_front().ok_or_else(|| Error::other("nothing is on its way"))
        }

        fn idle(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn likelihood(seen: &[u32], target: u32) -> f32 {
        let hash = seen.iter().chain([&target]).fold(7_u32, |hash, x| hash.wrapping_mul(31).wrapping_add(*x));
        -((hash % 1000) as f32)
    }

    #[test]
    fn any_capacity_gives_each_request_its_own_likelihood() {
        let mut requests = Vec::new();
        for i in 0..60_u32 {
            let context: Vec<u32> = (0..1 + i % 13).map(|k| k * (1 + i / 20)).collect();
            let targets: Vec<u32> = (0..1 + i % 4).map(|k| 3 * i + k).collect();
            requests.push(request(&context, &targets));
        }
        let expected = |request: &Encoded| -> f64 {
            let first = request.sharable();
            let each =
                |(k, &target): (usize, &u32)| f64::from(likelihood(&request.input[..=first + k], target));
            request.targets.iter().enumerate().map(each).sum()
        };
        let whole: usize = requests.iter().map(|request| request.input.len()).sum();
        for [slots, tokens, rows, in_flight] in [[1, 1, 1, 1], [2, 3, 2, 1], [5, 16, 4, 3], [40, 512, 256, 2]]
        {
            let capacity = Capacity { slots, length: 32, tokens, rows, vocabulary: 1, in_flight };
            let slots = vec![vec![None; 32]; slots];
            let mut model = Witness { capacity, slots, answers: VecDeque::new(), read: 0 };
            let mut scores = vec![None; requests.len()];
            score(&mut model, &requests, |i, scored| {
                assert!(scores[i].replace(*scored).is_none(), "request {i} is done twice");
                Ok(())
            })
            .unwrap();
            for (request, scored) in requests.iter().zip(scores) {
                let scored = scored.expect("every request is done");
                assert_eq!(
                    (scored.log_likelihood, scored.tokens),
                    (expected(request), request.targets.len())
                );
                assert_eq!(scored.is_greedy, request.targets.iter().all(|target| target % 5 > 0));
            }
            // A group needs a slot for each of two members and one for what they share.
            assert!(
                if capacity.slots < 3 { model.read == whole } else { model.read < whole },
                "{capacity:?}"
            );
        }
    }
}
