//! The servers whose containers hostnames lead to.

use std::sync::Arc;

use gantry_model::{ServerId, ServerName};

/// The servers that this process runs; a cheap handle.
///
/// Containers of others may have records, with addresses that belong to somebody else by now: there is
/// no route to them.
#[derive(Clone, Debug, Default)]
pub struct Servers(Arc<[(ServerId, ServerName)]>);

/// Which of [`Servers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerIndex(u16);

impl Servers {
    /// These.
    pub fn new(servers: impl IntoIterator<Item = (ServerId, ServerName)>) -> Self {
        Self(servers.into_iter().collect())
    }

    /// Whether one has this label.
    pub fn have(&self, label: &str) -> bool {
        self.0.iter().any(|(_, name)| name.as_str() == label)
    }

    /// The label of one.
    pub fn name(&self, index: ServerIndex) -> &str {
        self.0.get(usize::from(index.0)).map_or("", |(_, name)| name.as_str())
    }

    pub(crate) fn index(&self, id: ServerId) -> Option<ServerIndex> {
        let position = self.0.iter().position(|(known, _)| *known == id)?;
        u16::try_from(position).ok().map(ServerIndex)
    }
}
