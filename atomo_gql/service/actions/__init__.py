"""Actions: recorded events, bindings, and the dispatcher that fires them."""
