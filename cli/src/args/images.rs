//! The commands for images.

use clap::Subcommand;
use gantry_model::ImageId;

#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// List images.
    List {
        /// Only those of this operating system.
        #[arg(long)]
        os: Option<String>,
    },
    /// Show an image.
    Get {
        /// Its id.
        id: ImageId,
    },
    /// List the images that you have taken into your list.
    Mine,
    /// Take an image into your list.
    Import {
        /// Its id.
        id: ImageId,
    },
    /// Rate an image, in the place of what you said before.
    Rate {
        /// Its id.
        id: ImageId,
        /// 0 to 5.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=5))]
        rating: u8,
    },
}
