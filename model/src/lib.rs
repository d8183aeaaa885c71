//! What the words mean: ids, names, the hostname grammar, container specs and phases.
