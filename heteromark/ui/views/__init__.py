"""The Training History pages. Not `pages/`, which Streamlit would take for pages of its own."""
