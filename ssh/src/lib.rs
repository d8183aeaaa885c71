//! Public-key login to a container.
