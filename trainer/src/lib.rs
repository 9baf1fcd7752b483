//! mtnlg: trains the model, tensor x pipeline x data parallel.
