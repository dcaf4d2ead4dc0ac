"""Commands of ``omg`` that this package adds."""
