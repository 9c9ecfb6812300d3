//! What the gateway must know of instances, operations and join tokens: read and written through the API like everybody else.

use async_trait::async_trait;
use gantry_api::names::{
    ENROLLMENT_MANAGER, JOIN_TOKEN_ID_LABEL, JOIN_TOKEN_SECRET_TYPE, REGISTERED_BY_AGENT_ANNOTATION,
};
use gantry_api::v1alpha1::{DockerInstance, DockerInstanceSpec, Operation};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// The API did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The object changed meanwhile: read it again.
    #[error("it was changed at the same time")]
    Conflict,
    /// What was asked for is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The API could not be asked.
    #[error("the API does not answer")]
    Unavailable(#[source] kube::Error),
}

impl From<kube::Error> for DirectoryError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if matches!(status.code, 400 | 404 | 422) => {
                Self::Invalid(status.message)
            }
            other => Self::Unavailable(other),
        }
    }
}

/// A token's Secret is named so, and then its public id.
const TOKEN_NAME_PREFIX: &str = "join-token-";

/// A join token as it is stored: never its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Name of its Secret.
    pub name: String,
    /// Version it was read at.
    pub version: String,
    /// SHA-256 of the secret part, hex.
    pub hash: String,
    /// RFC 3339.
    pub expires: String,
    /// How often it may still be used.
    pub uses: u32,
}

impl StoredToken {
    /// Its public id.
    pub fn id(&self) -> &str {
        self.name.strip_prefix(TOKEN_NAME_PREFIX).unwrap_or_default()
    }
}

/// What the gateway must know, and the little it writes.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The instance of that name.
    async fn instance(&self, namespace: &str, name: &str) -> Result<Option<DockerInstance>, DirectoryError>;

    /// Every operation that names it, as of now.
    async fn operations(&self, namespace: &str, name: &str) -> Result<Vec<Operation>, DirectoryError>;

    /// The join token with that public id.
    async fn token(&self, namespace: &str, id: &str) -> Result<Option<StoredToken>, DirectoryError>;

    /// Uses a token once; `Conflict` if somebody did at the same time.
    async fn use_token(&self, namespace: &str, token: &StoredToken) -> Result<(), DirectoryError>;

    /// Takes one use back, of a token as it was before; nothing if somebody has deleted it since.
    async fn return_use(&self, namespace: &str, token: &StoredToken) -> Result<(), DirectoryError>;

    /// Makes an instance of that name.
    async fn register(&self, namespace: &str, name: &str) -> Result<DockerInstance, DirectoryError>;

    /// Gives the instance to a key, which came with that token; `Conflict` if it changed since it was read.
    async fn bind(
        &self,
        instance: &DockerInstance,
        key_fingerprint: &str,
        token: &StoredToken,
    ) -> Result<(), DirectoryError>;
}

/// The directory behind an API client.
#[derive(Clone)]
pub struct ApiDirectory {
    client: Client,
}

impl ApiDirectory {
    /// Uses that client, whose rights it needs on instances, operations and secrets.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn instances(&self, namespace: &str) -> Api<DockerInstance> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

#[async_trait]
impl Directory for ApiDirectory {
    async fn instance(&self, namespace: &str, name: &str) -> Result<Option<DockerInstance>, DirectoryError> {
        Ok(self.instances(namespace).get_opt(name).await?)
    }

    async fn operations(&self, namespace: &str, name: &str) -> Result<Vec<Operation>, DirectoryError> {
        let operations: Api<DeserializeGuard<Operation>> = Api::namespaced(self.client.clone(), namespace);
        let of_instance = ListParams::default().fields(&format!("spec.instanceRef.name={name}"));
        // One that cannot be read must not keep the agent away.
        Ok(operations
            .list(&of_instance)
            .await?
            .into_iter()
            .filter_map(|operation| operation.0.ok())
            .collect())
    }

    async fn token(&self, namespace: &str, id: &str) -> Result<Option<StoredToken>, DirectoryError> {
        let name = format!("{TOKEN_NAME_PREFIX}{id}");
        let Some(secret) = self.secrets(namespace).get_opt(&name).await? else { return Ok(None) };
        if secret.type_.as_deref() != Some(JOIN_TOKEN_SECRET_TYPE) {
            return Ok(None);
        }
        let field = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        let version = secret.resource_version();
        Ok((|| {
            Some(StoredToken {
                name,
                version: version?,
                hash: field("token-hash")?,
                expires: field("expires")?,
                uses: field("uses")?.parse().ok()?,
            })
        })())
    }

    async fn use_token(&self, namespace: &str, token: &StoredToken) -> Result<(), DirectoryError> {
        let secrets = self.secrets(namespace);
        if token.uses <= 1 {
            let only_as_read = Preconditions { resource_version: Some(token.version.clone()), uid: None };
            secrets.delete(&token.name, &DeleteParams::default().preconditions(only_as_read)).await?;
            return Ok(());
        }
        let left = json!({
            "metadata": {"resourceVersion": token.version},
            "stringData": {"uses": (token.uses - 1).to_string()},
        });
        secrets.patch(&token.name, &PatchParams::apply(ENROLLMENT_MANAGER), &Patch::Merge(left)).await?;
        Ok(())
    }

    async fn return_use(&self, namespace: &str, token: &StoredToken) -> Result<(), DirectoryError> {
        let secrets = self.secrets(namespace);
        let params = PatchParams::apply(ENROLLMENT_MANAGER);
        if let Some(now) = self.token(namespace, token.id()).await? {
            let more = json!({
                "metadata": {"resourceVersion": now.version},
                "stringData": {"uses": now.uses.saturating_add(1).to_string()},
            });
            secrets.patch(&token.name, &params, &Patch::Merge(more)).await?;
        } else if token.uses <= 1 {
            // The last use took the Secret with it.
            let again = serde_json::from_value(json!({
                "metadata": {"name": token.name, "labels": {JOIN_TOKEN_ID_LABEL: token.id()}},
                "type": JOIN_TOKEN_SECRET_TYPE,
                "stringData": {"token-hash": token.hash, "expires": token.expires, "uses": "1"},
            }));
            let again: Secret = again.map_err(|error| DirectoryError::Invalid(error.to_string()))?;
            let params =
                PostParams { field_manager: Some(ENROLLMENT_MANAGER.to_owned()), ..PostParams::default() };
            secrets.create(&params, &again).await?;
        }
        Ok(())
    }

    async fn register(&self, namespace: &str, name: &str) -> Result<DockerInstance, DirectoryError> {
        let mut instance = DockerInstance::new(name, DockerInstanceSpec::default());
        instance.annotations_mut().insert(REGISTERED_BY_AGENT_ANNOTATION.to_owned(), "true".to_owned());
        let params =
            PostParams { field_manager: Some(ENROLLMENT_MANAGER.to_owned()), ..PostParams::default() };
        Ok(self.instances(namespace).create(&params, &instance).await?)
    }

    async fn bind(
        &self,
        instance: &DockerInstance,
        key_fingerprint: &str,
        token: &StoredToken,
    ) -> Result<(), DirectoryError> {
        let bound = json!({
            "metadata": {"resourceVersion": instance.resource_version()},
            "status": {"agent": {
                "keyFingerprint": key_fingerprint,
                "joinToken": token.id(),
                "joinTokenExpirationTime": token.expires,
            }},
        });
        let namespace = instance.namespace().unwrap_or_default();
        self.instances(&namespace)
            .patch_status(&instance.name_any(), &PatchParams::apply(ENROLLMENT_MANAGER), &Patch::Merge(bound))
            .await?;
        Ok(())
    }
}
