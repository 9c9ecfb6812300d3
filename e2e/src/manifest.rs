//! Manifests as people write them.

/// An Operation on a container; `more` is further YAML below `spec`, indented by two.
pub fn operation(name: &str, instance: &str, action: &str, target: &str, more: &str) -> String {
    targeted(name, instance, action, &format!("{{kind: Container, name: \"{target}\"}}"), more)
}

/// An Operation on an image.
pub fn image_operation(name: &str, instance: &str, action: &str, target: &str, more: &str) -> String {
    targeted(name, instance, action, &format!("{{kind: Image, name: \"{target}\"}}"), more)
}

fn targeted(name: &str, instance: &str, action: &str, target: &str, more: &str) -> String {
    format!(
        "---\napiVersion: gantry.dev/v1alpha1\nkind: Operation\nmetadata:\n  name: {name}\nspec:\n  \
         instanceRef: {{name: {instance}}}\n  action: {action}\n  target: {target}\n{more}\n"
    )
}
