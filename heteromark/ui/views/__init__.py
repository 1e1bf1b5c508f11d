"""The Training History pages. Streamlit would load a folder named `pages/` by itself."""
