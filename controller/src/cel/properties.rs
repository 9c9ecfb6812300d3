//! What holds of every expression: it gives no more than was worked out before, and neither compiling nor running it ends the process.

use proptest::prelude::*;
use serde_json::json;

use super::shape::NODE;
use super::*;

static TEXT: Shape = Shape::Text(8);
static SHAPE: Shape = Shape::Fields(&[
    ("text", Shape::Text(8)),
    ("list", Shape::List(4, &TEXT)),
    ("map", Shape::Map { entries: 3, name: 4, value: 8 }),
]);
/// More is not tried: only that it is known.
const MOST: u64 = 4 << 20;

fn largest() -> Value {
    json!({"text": "aaaaaaaa", "list": ["aaaaaaaa", "abababab", "", "bbbbbbbb"],
        "map": {"aaaa": "aaaaaaaa", "bbbb": "bbbbbbbb", "cccc": ""}})
}

/// Expressions that give a text, as often as not one that grows; `x` is the variable of a macro around them.
fn texts(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop::sample::select(vec![
        "v.text",
        "'ab'",
        "''",
        "x",
        "v.list[1]",
        "v.map.bbbb",
        "string(7)",
        "'a'",
    ]);
    let leaf = leaf.prop_map(str::to_owned).boxed();
    if depth == 0 {
        return leaf;
    }
    let (text, list) = (texts(depth - 1), lists(depth - 1));
    prop_oneof![
        leaf,
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a}.replace('a', {b})")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a}.replace('', {b})")),
        (list.clone(), text.clone()).prop_map(|(l, b)| format!("{l}.join({b})")),
        list.clone().prop_map(|l| format!("{l}[0]")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("({a} == {b} ? {a} : {b} + {b})")),
        text.clone().prop_map(|a| format!("strings.quote({a})")),
        text.clone().prop_map(|a| format!("{a}.upperAscii().trim().substring(0)")),
        text.clone().prop_map(|a| format!("{a}.reverse()")),
        text.prop_map(|a| format!("{a}.find('[a-z]+')")),
    ]
    .boxed()
}

fn lists(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop::sample::select(vec!["v.list", "[]", "['a', 'b']", "v.map.map(k, v.map[k])"]);
    let leaf = leaf.prop_map(str::to_owned).boxed();
    if depth == 0 {
        return leaf;
    }
    let (text, list) = (texts(depth - 1), lists(depth - 1));
    prop_oneof![
        leaf,
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
        (list.clone(), text.clone()).prop_map(|(l, a)| format!("{l}.map(x, {a})")),
        (list.clone(), text.clone()).prop_map(|(l, a)| format!("{l}.filter(x, x != {a})")),
        (list.clone(), list.clone()).prop_map(|(l, m)| format!("({l} + {m})")),
        (list.clone(), list.clone()).prop_map(|(l, m)| format!("{l}.map(x, {m}).flatten()")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a}.split({b})")),
        text.prop_map(|a| format!("{a}.findAll('.')")),
        list.prop_map(|l| format!("{l}.sort().distinct().reverse().slice(0, 2)")),
    ]
    .boxed()
}

/// As it is counted when it is worked out.
fn weight(value: &Cel) -> u64 {
    match value {
        Cel::String(text) => NODE + text.len() as u64,
        Cel::List(entries) => NODE + entries.iter().map(weight).sum::<u64>(),
        Cel::Map(map) => NODE + map.map.values().map(|value| 2 * NODE + weight(value)).sum::<u64>(),
        _ => NODE,
    }
}

proptest! {
    #[test]
    fn t24_no_expression_gives_more_than_was_worked_out(text in texts(4).prop_union(lists(4))) {
        let text = format!("[v.text].map(x, {text})[0]");
        let Ok(expression) = Expression::compile_for(&text, "v", &SHAPE, MOST) else { return Ok(()) };

        let given = Scope::new("v", &largest()).0.resolve(&expression.tree);

        if let Ok(given) = given {
            prop_assert!(weight(&given) <= expression.cost(), "{}: {} > {}", text, weight(&given), expression.cost());
        }
    }

    #[test]
    fn t24_whatever_is_written_it_is_refused_or_can_be_asked(text in "[a-z.()\\[\\]{}'\"?:&|!=<>+*/%, 0-9-]{0,60}") {
        if let Ok(expression) = Expression::compile_for(&text, "v", &SHAPE, MOST) {
            let _ = expression.judge(&Scope::new("v", &largest()));
        }
    }
}
