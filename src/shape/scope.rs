//! How many values something has: the axes that it varies along.

/// How many values a node has, from outermost to innermost. Broadcasting goes inward by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scope {
    /// Known when the plan is made, changeable by `set_param`: a uniform.
    Param,
    /// One value on the GPU, changeable every step.
    Scalar,
    /// One value for the whole tensor, computed from it.
    Total,
    /// One value for rows that belong together.
    Group,
    /// One value a row (a sample).
    Row,
    /// One value a column (a class).
    Column,
    /// One value an element.
    Element,
}

impl Scope {
    /// The scope of a value computed from both.
    pub fn join(self, other: Scope) -> Scope {
        let (outer, inner) = if self <= other { (self, other) } else { (other, self) };
        match (outer, inner) {
            (Scope::Group | Scope::Row, Scope::Column) => Scope::Element,
            (_, inner) => inner,
        }
    }
}
