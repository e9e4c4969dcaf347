//! Scopes: the axes along which a value varies.

/// The axes along which a value varies, from outermost to innermost. Values broadcast inward without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scope {
    /// Known when the plan is made, changeable by `set_param`: a uniform.
    Param,
    /// One value on the GPU, changeable every step.
    Scalar,
    /// One value for the whole tensor, computed from it.
    Total,
    /// One value per group of consecutive rows (see [`PlanSpec::group_rows`](crate::PlanSpec::group_rows)).
    Group,
    /// One value per row (sample).
    Row,
    /// One value per column (class), shape `[cols]`: an input (class weights), or a sum over all rows.
    Column,
    /// One value per group and column, shape `[groups, cols]`: an input, or a sum over the rows of each group.
    GroupColumn,
    /// One value per element.
    Element,
    /// One value per pair of elements of a row: a value of one seen from another ([`Expr::partner`](crate::Expr::partner)),
    /// and what is computed of such. No tensor has this scope.
    Pair,
}

impl Scope {
    /// Whether a value varies along the columns.
    pub fn has_columns(self) -> bool {
        matches!(self, Scope::Column | Scope::GroupColumn | Scope::Element | Scope::Pair)
    }

    /// The scope of a value computed from both.
    pub fn join(self, other: Scope) -> Scope {
        let (outer, inner) = if self <= other { (self, other) } else { (other, self) };
        match (outer, inner) {
            (Scope::Group, Scope::Column) => Scope::GroupColumn,
            (Scope::Row, Scope::Column | Scope::GroupColumn) => Scope::Element,
            (_, inner) => inner,
        }
    }
}
