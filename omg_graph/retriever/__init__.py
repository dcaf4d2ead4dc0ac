"""Evidence retriever R: from a plan and an observation to weighted, traceable evidence (section 3.4)."""
