"""Run identity, run record and run store. Imports no torch."""
