"""Which dimensions of given embeddings collapse, how sure that is, and why: measures, evidence, causes, reports.

Monitor and diagnose stand at the door; planted cases have a known answer.
"""
