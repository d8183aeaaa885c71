//! The commands for the vault.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// List keys without their values; without --realm, those of all realms.
    List,
    /// Print the value of a key as it is.
    Get {
        /// The key.
        key: String,
    },
    /// Put a value away, from the standard input unless it is given otherwise.
    Set(VaultSet),
    /// Delete a key and its value.
    Delete {
        /// The key.
        key: String,
    },
    /// Delete every key; without --realm, those of all realms.
    Clear,
    /// How much is in the vault, and may be.
    Stats,
}

#[derive(Args, Debug)]
pub(crate) struct VaultSet {
    /// The key: 1 to 255 letters, digits, dots, underscores and hyphens.
    pub(crate) key: String,
    /// The value; better not on the command line, where others can read it.
    #[arg(long, conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// The file that holds the value.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// What to say of it, a JSON object; `null` for nothing. What was said before stays if left out.
    #[arg(long, value_name = "JSON|null", value_parser = object)]
    pub(crate) metadata: Option<serde_json::Value>,
    /// Change the metadata alone.
    #[arg(long, conflicts_with_all = ["value", "file"], requires = "metadata")]
    pub(crate) keep_value: bool,
}

fn object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Object(_) | serde_json::Value::Null)) => Ok(value),
        Ok(_) => Err("must be a JSON object or null".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
