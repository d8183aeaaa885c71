//! Things that people call by an id or by a name.

use gantry_model::{ContainerId, InvalidName, ServerId, ServerName};

/// A server as people say it. What reads as an id is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerRef {
    Id(ServerId),
    Name(ServerName),
}

impl std::str::FromStr for ServerRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_no_id) => text.parse().map(Self::Name),
        }
    }
}

/// A container as people say it. What reads as an id is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerRef {
    Id(ContainerId),
    Name(String),
}

impl std::str::FromStr for ContainerRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("it is the id or the name of a container");
        }
        Ok(text.parse().map_or_else(|_no_id| Self::Name(text.to_owned()), Self::Id))
    }
}
