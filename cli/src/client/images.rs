//! `gantry images …`.

use serde_json::json;

use super::{Client, view};
use crate::{
    args::ImagesCommand,
    exit::Failure,
    output::{self, Format},
};

impl Client {
    pub(super) async fn images(&self, command: ImagesCommand) -> Result<(), Failure> {
        match command {
            ImagesCommand::Get { id } => {
                self.show(&self.api.get(&format!("images/public/{id}"), &[]).await?)
            }
            ImagesCommand::List { os } => {
                let query: Vec<_> = os.into_iter().map(|os| ("os", os)).collect();
                let data = self.api.get("images/public", &query).await?;
                self.list(&data, view::field(&data, "images"), view::IMAGE)
            }
            ImagesCommand::Mine => {
                let data = self.api.get("images/user", &[]).await?;
                self.list(&data, view::field(&data, "images"), view::USER_IMAGE)
            }
            ImagesCommand::Import { id } => {
                let path = format!("images/import/{id}");
                let done = self.api.post(&path, &[], Some(&json!({}))).await?;
                match self.out {
                    Format::Json => output::json(&done),
                    Format::Table => {
                        output::note(&format!("Image {id} is in your list."));
                        Ok(())
                    }
                }
            }
            ImagesCommand::Rate { id, rating } => {
                let path = format!("images/rate/{id}");
                let body = json!({ "rating": rating });
                self.show(&self.api.post(&path, &[], Some(&body)).await?)
            }
        }
    }
}
