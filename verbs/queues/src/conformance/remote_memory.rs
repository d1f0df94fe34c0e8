use super::Check;
use crate::Context;

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![]
}
