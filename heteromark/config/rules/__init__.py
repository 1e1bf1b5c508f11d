"""Rules across sections: which keys have an effect, and which values conflict."""
