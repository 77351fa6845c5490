"""The tables and the verdicts on the claims: one module an exhibit, `sheet` for what any table is, the templates beside what fills them."""
