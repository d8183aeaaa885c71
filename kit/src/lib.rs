//! The catalogue of Kit services and what installs and starts them.
