//! What an image is made from, and how far its making is.

use gantry_model::container::ImageName;

use crate::Kit;

/// How one image with one kit is made. Plain data; whoever wires the program gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The name that containers ask for.
    pub image: ImageName,
    /// The kit that they ask for.
    pub kit: Kit,
    /// The release of the distribution, as its archive names it (`trixie`).
    pub suite: String,
    /// Packages to install beside the essential ones.
    pub packages: Vec<String>,
    /// Files to write after that.
    pub files: Vec<File>,
    /// Shell commands to run in the image after that, in order, as its root.
    pub commands: Vec<String>,
}

/// A file in an image, owned by its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the image; missing directories are made with mode 0755.
    pub path: String,
    /// Permission bits, as 0o644.
    pub mode: u32,
    /// What it holds.
    pub contents: Vec<u8>,
}

/// How far the making of an image is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The image that is being made.
    pub image: ImageName,
    /// What is being done, as "installing packages".
    pub step: String,
    /// How much of the whole is done, 0 to 1, where that can be told.
    pub fraction: Option<f32>,
    /// The last line of output worth showing.
    pub message: String,
}
