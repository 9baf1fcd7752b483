//! The contract every mtnlg backend fulfils: views, operations, collectives, errors, Philox.
