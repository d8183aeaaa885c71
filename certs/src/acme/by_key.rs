//! A revocation that the certificate's own key signs (RFC 8555, section 7.6): for a CA that does not let our account
//! there revoke, because another one has ordered the certificate. The ACME library signs by accounts alone.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_TYPE};
use instant_acme::{Error, Problem};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;

/// What is needed of a CA's directory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    revoke_cert: String,
}

/// Has a CA revoke a certificate (in DER) for a reason (a code of RFC 5280), signed by its key (in PKCS #8).
pub(super) async fn revoke(
    client: &Client,
    directory: &str,
    (certificate, reason): (&[u8], Option<u8>),
    key: &[u8],
) -> Result<(), Error> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key)
        .map_err(|_rejected| Error::KeyRejected)?;
    let answer = ask(client, Method::GET, directory, None).await?;
    let directory: Directory = serde_json::from_slice(answer.body())?;
    let answer = ask(client, Method::HEAD, &directory.new_nonce, None).await?;
    let nonce = answer.headers().get("replay-nonce").and_then(|nonce| nonce.to_str().ok());
    let nonce = nonce.ok_or(Error::Str("the CA gives no nonce"))?;
    let mut payload = json!({ "certificate": URL_SAFE_NO_PAD.encode(certificate) });
    if let (Some(reason), Some(payload)) = (reason, payload.as_object_mut()) {
        payload.insert("reason".to_owned(), reason.into());
    }
    let body = signed(&key, (nonce, &directory.revoke_cert), &payload)?;
    ask(client, Method::POST, &directory.revoke_cert, Some(body)).await.map(drop)
}

/// A message as RFC 8555, section 6.2, has it, with the key that has signed it.
fn signed(
    key: &EcdsaKeyPair,
    (nonce, url): (&str, &str),
    payload: &serde_json::Value,
) -> Result<Vec<u8>, Error> {
    // An uncompressed point: 4 and both coordinates.
    let point = key.public_key().as_ref().split_at_checked(1).filter(|(kind, _)| kind == &[4]);
    let (x, y) = point.and_then(|(_, point)| point.split_at_checked(32)).ok_or(Error::Crypto)?;
    let protected = json!({
        "alg": "ES256",
        "jwk": {
            "crv": "P-256", "kty": "EC", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        },
        "nonce": nonce,
        "url": url,
    });
    let protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&protected)?);
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(payload)?);
    let signature = key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature.map_err(|_failed| Error::Crypto)?);
    let message = json!({ "protected": protected, "payload": payload, "signature": signature });
    Ok(serde_json::to_vec(&message)?)
}

/// Sends a request; an answer that is a refusal is an error.
async fn ask(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Vec<u8>>,
) -> Result<Response<Bytes>, Error> {
    let mut request = Request::builder().method(method).uri(url);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/jose+json");
    }
    let answer = client.carry(request.body(body.unwrap_or_default().into())?).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(match serde_json::from_slice::<Problem>(answer.body()) {
        Ok(problem) => Error::Api(problem),
        Err(_no_problem) => Error::Other(format!("the CA answers {}", answer.status()).into()),
    })
}
