//! What is shown on a terminal while Operations run: how many have ended, and of a pull each layer.

use std::collections::HashMap;
use std::time::Duration;

use gantry_api::v1alpha1::{self, Action, LayerProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::plain::plain;

/// Bars at once: more do not fit on a screen.
const MOST: usize = 24;

/// On standard error, and there only if it is a terminal.
pub(crate) struct Progress {
    all: MultiProgress,
    /// The line with how many have ended.
    line: ProgressBar,
    /// One a layer, or one an Operation where there are several.
    bars: HashMap<(String, String), ProgressBar>,
    is_one: bool,
}

impl Progress {
    pub(crate) fn new(action: Action, total: usize) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let line = all.add(ProgressBar::new(u64::try_from(total).unwrap_or_default()));
        let text = format!("{{spinner}} {} {{pos}} of {{len}} {{wide_msg}}", action.as_str());
        line.set_style(style(&text));
        line.enable_steady_tick(Duration::from_millis(120));
        Self { all, line, bars: HashMap::new(), is_one: total == 1 }
    }

    /// One Operation has come further.
    pub(crate) fn hears(
        &mut self,
        name: &str,
        shown: &str,
        message: Option<&str>,
        progress: Option<&v1alpha1::Progress>,
    ) {
        if let Some(message) = message {
            self.line.set_message(format!("{shown}: {}", plain(message)));
        }
        let Some(progress) = progress else { return };
        if self.is_one {
            for layer in &progress.layers {
                self.layer(name, layer);
            }
            return;
        }
        let total = u64::from(progress.layers_total);
        if let Some(bar) = self.bar(name, "", "{prefix:30} [{bar:30}] {pos}/{len} layers") {
            bar.set_prefix(shown.to_owned());
            bar.set_length(total);
            bar.set_position(u64::from(progress.layers_done).min(total));
        }
    }

    fn layer(&mut self, name: &str, layer: &LayerProgress) {
        let known = "{prefix:12} {msg:20} [{bar:30}] {bytes}/{total_bytes}";
        if let Some(bar) = self.bar(name, &layer.id, known) {
            bar.set_prefix(plain(&layer.id));
            bar.set_message(plain(&layer.status));
            if layer.total_bytes > 0 {
                bar.set_length(layer.total_bytes);
                bar.set_position(layer.current_bytes.min(layer.total_bytes));
            }
        }
    }

    fn bar(&mut self, name: &str, part: &str, text: &str) -> Option<&ProgressBar> {
        let key = (name.to_owned(), part.to_owned());
        if !self.bars.contains_key(&key) {
            if self.bars.len() >= MOST {
                return None;
            }
            let bar = self.all.insert_before(&self.line, ProgressBar::new(0));
            bar.set_style(style(text).progress_chars("=> "));
            self.bars.insert(key.clone(), bar);
        }
        self.bars.get(&key)
    }

    /// One Operation has ended.
    pub(crate) fn ends(&mut self, name: &str) {
        self.line.inc(1);
        self.bars.retain(|(of, _), bar| {
            let is_over = of == name;
            if is_over {
                bar.finish_and_clear();
            }
            !is_over
        });
    }

    /// A line on standard error above the bars, whether it is a terminal or not.
    pub(crate) fn says(&self, text: &str) {
        self.apart(|| eprintln!("{text}"));
    }

    /// Writes while no bar is in the way.
    pub(crate) fn apart<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }

    /// Nothing of it stays on the terminal.
    pub(crate) fn end(&self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
        self.line.finish_and_clear();
    }
}

fn style(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar())
}
