//! Why memory cannot be shared within a project, or why it is in the way.

/// Why memory cannot be shared within a project, or why it is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RamdiskError {
    /// The project has members besides its owner.
    #[error(
        "the project has members besides its owner, who could read what its containers would share in \
         memory; remove them first"
    )]
    MembersPresent,
    /// Containers of the project share memory.
    #[error(
        "containers of the project share memory, which a member could read; set their ramdisk_scope to \
         \"container\" first"
    )]
    Shared,
}
