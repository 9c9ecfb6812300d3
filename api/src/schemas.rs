//! The kinds as documents: CRD manifests, JSON Schemas for editors, and the structural schemas both are made from.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::v1alpha1::{DockerInstance, Operation};

/// Every kind of ours, as a CRD.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![DockerInstance::crd(), Operation::crd()]
}
