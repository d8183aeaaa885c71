//! Turns image names into root file systems.
