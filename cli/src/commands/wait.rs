//! `gantry wait`: until something is so.

use std::time::Duration;

use http::Request;
use serde_json::Value;

use super::objects;
use crate::args::{Reach, WaitForArgs};
use crate::client::Controller;
use crate::kinds;
use crate::output::failure::{Ends, Hinted, code};
use crate::output::jsonpath::Template;
use crate::output::out;
use crate::output::plain::plain;

/// How often it is looked.
const POLL: Duration = Duration::from_millis(300);

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum Until {
    Created,
    Deleted,
    Condition { name: String, status: String },
    Shows { template: Template, value: String },
}

/// Waits for one after the other, all within the time.
pub(crate) async fn run(reach: &Reach, options: &WaitForArgs) -> anyhow::Result<()> {
    let until = Until::parse(&options.until)
        .map_err(|what| Hinted::new(Ends::Misunderstood, what).hint("`gantry wait --help` shows some"))?;
    let controller = Controller::reach(reach).await?;
    let kinds = kinds::known(&controller, |kinds| kinds::meant(kinds, &options.objects.what).is_ok()).await?;
    let meant = kinds::meant(&kinds, &options.objects.what)?;
    let found = objects::find(&controller, &meant, options.objects.selector.as_deref(), false).await?;
    if found.is_empty() && until != Until::Deleted {
        return Err(Hinted::new(Ends::NotFound, "there is nothing with these labels").into());
    }
    let patience = Duration::try_from(options.timeout).unwrap_or_default();
    let mut waited_for = String::new();
    let all = async {
        for named in found {
            waited_for = named.shown();
            loop {
                let request = Request::get(&named.path).body(Vec::new())?;
                let object = match controller.read::<Value>(request, &named.shown()).await {
                    Ok(object) => Some(object),
                    Err(error) if code(&error) == Ends::NotFound as u8 => {
                        if until.needs_it() {
                            return Err(error);
                        }
                        None
                    }
                    Err(error) => return Err(error),
                };
                if until.is_so(object.as_ref()) {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
            out::write(&format!("{} {}\n", named.shown(), until.met()))?;
        }
        Ok(())
    };
    match tokio::time::timeout(patience, all).await {
        Ok(ended) => ended,
        Err(_) => Err(Hinted::new(
            Ends::TimedOut,
            format!("{waited_for}: not so within {:#}: {}", options.timeout, plain(&options.until)),
        )
        .hint(format!("`gantry describe {waited_for}` says how it is; --timeout waits longer"))
        .into()),
    }
}

impl Until {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`--for {}` is not understood", plain(text));
        match text.split_once('=') {
            None if text == "create" => Ok(Self::Created),
            None if text == "delete" => Ok(Self::Deleted),
            Some(("condition", rest)) => {
                let (name, status) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Self::Condition { name: name.to_owned(), status: status.to_owned() })
            }
            Some(("jsonpath", rest)) => {
                let (template, value) = rest.rsplit_once('=').ok_or_else(wrong)?;
                Ok(Self::Shows { template: Template::parse(template)?, value: value.to_owned() })
            }
            _ => Err(wrong()),
        }
    }

    /// True where what is not there cannot become so.
    fn needs_it(&self) -> bool {
        !matches!(self, Self::Created | Self::Deleted)
    }

    fn is_so(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Created, object) => object.is_some(),
            (Self::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Self::Condition { name, status }, Some(object)) => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                conditions.into_iter().flatten().any(|condition| {
                    let is = |field: &str, wanted: &str| {
                        condition
                            .get(field)
                            .and_then(Value::as_str)
                            .is_some_and(|is| is.eq_ignore_ascii_case(wanted))
                    };
                    is("type", name) && is("status", status)
                })
            }
            (Self::Shows { template, value }, Some(object)) => template.render(object) == *value,
        }
    }

    fn met(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Condition { .. } | Self::Shows { .. } => "condition met",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_waited_for_is_seen_in_the_object() {
        let object = json!({"status": {"health": "Online", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Failed", "status": "False"},
        ]}});
        let is_so = |text: &str, object: Option<&Value>| Until::parse(text).expect(text).is_so(object);

        for met in [
            "condition=Ready",
            "condition=ready=true",
            "condition=Failed=False",
            "jsonpath={.status.health}=Online",
            "create",
        ] {
            assert!(is_so(met, Some(&object)), "{met}");
            assert!(!is_so(met, None), "{met}");
        }
        for not in ["condition=Failed", "condition=Other", "jsonpath={.status.health}=Offline", "delete"] {
            assert!(!is_so(not, Some(&object)), "{not}");
        }
        assert!(is_so("delete", None));
        for wrong in ["", "ready", "jsonpath={.a}", "jsonpath={=x", "phase=Done"] {
            assert!(Until::parse(wrong).is_err(), "{wrong} was taken");
        }
    }
}
