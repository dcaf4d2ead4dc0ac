"""Knowledge bases made from samples: their entries, and the graph that builds one."""
