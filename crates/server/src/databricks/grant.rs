//! How Databricks lets a service principal in.

use trace_destination_http::{Credentials, OAuthClient, Secret};

/// Where tokens are given out, and for what (Databricks, "Authorize service principal access with
/// OAuth").
const TOKEN_PATH: &str = "/oidc/v1/token";
const TOKEN_SCOPE: &str = "all-apis";

/// A service principal: its id and its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
}

impl Grant {
    /// The tokens of the workspace at an address.
    pub(crate) fn credentials(&self, base: &str) -> Credentials {
        let (id, secret) = (&self.client_id, self.client_secret.expose());
        let client = OAuthClient::new(id, secret, format!("{base}{TOKEN_PATH}"));
        Credentials::oauth(client.with_scope(TOKEN_SCOPE))
    }
}
