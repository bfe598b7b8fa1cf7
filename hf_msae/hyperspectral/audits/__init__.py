"""The audits of a red team: one file each, a function of a subject that returns an `Outcome`."""
