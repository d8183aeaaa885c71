//! `gantry 2fa …`.

use serde_json::{Value, json};

use super::{
    Client,
    accounts::{password_in, read_line, read_secret},
    view,
};
use crate::{
    args::{
        TwoFactorCommand,
        accounts::{AccountPassword, PasswordAndCode},
    },
    exit::Failure,
    output::{self, Format},
};

impl Client {
    pub(super) async fn two_factor(&self, command: TwoFactorCommand) -> Result<(), Failure> {
        let path = "users/auth/2fa";
        match command {
            TwoFactorCommand::Status => {
                self.show(&self.api.get(&format!("{path}/status"), &[]).await?)
            }
            TwoFactorCommand::Setup(password) => {
                let body = json!({ "password": given(password)? });
                let made = self.api.post(&format!("{path}/setup"), &[], Some(&body)).await?;
                self.show_setup(&made)
            }
            TwoFactorCommand::Enable { code } => {
                let body = json!({ "code": code });
                let enabled =
                    self.api.post(&format!("{path}/verify-setup"), &[], Some(&body)).await?;
                self.keep(&view::text(view::field(&enabled, "token")))?;
                output::note("Logins need a code from now on; all other sessions have ended.");
                Ok(())
            }
            TwoFactorCommand::Disable(proof) => {
                let disabled = self.api.delete_with(path, &both(proof)?).await?;
                self.keep(&view::text(view::field(&disabled, "token")))?;
                output::note("Logins need no code any more; all other sessions have ended.");
                Ok(())
            }
            TwoFactorCommand::BackupCodes(proof) => {
                let path = format!("{path}/backup-codes/regenerate");
                let made = self.api.post(&path, &[], Some(&both(proof)?)).await?;
                self.show_codes(&made)
            }
            TwoFactorCommand::TokenGate { gate, password, otp } => {
                let body = if gate == "on" {
                    json!({ "enabled": true })
                } else {
                    let code = code(otp)?;
                    json!({ "enabled": false, "password": given(password)?, "otp_code": code })
                };
                self.show(&self.api.patch(&format!("{path}/token-gate"), &body).await?)
            }
        }
    }

    fn show_setup(&self, made: &Value) -> Result<(), Failure> {
        if matches!(self.out, Format::Json) {
            return output::json(made);
        }
        output::note("Give this to an authenticator app, and then `gantry 2fa enable` its code:");
        for field in ["manual_entry_key", "otpauth_url"] {
            output::line(&view::text(view::field(made, field)))?;
        }
        self.show_codes(made)
    }

    fn show_codes(&self, made: &Value) -> Result<(), Failure> {
        if matches!(self.out, Format::Json) {
            return output::json(made);
        }
        output::note("Codes for when the app is lost, each good once. They are not shown again:");
        for code in view::field(made, "backup_codes").as_array().into_iter().flatten() {
            output::line(&view::text(code))?;
        }
        Ok(())
    }
}

fn given(password: AccountPassword) -> Result<String, Failure> {
    match password.password_file {
        Some(file) => password_in(&file),
        None => read_secret("Password: "),
    }
}

fn code(given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(code) => Ok(code),
        None => read_line("Code: "),
    }
}

fn both(proof: PasswordAndCode) -> Result<Value, Failure> {
    Ok(json!({ "password": given(proof.password)?, "code": code(proof.otp)? }))
}
