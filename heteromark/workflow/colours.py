"""The colours of the workflow's plots and of the Training History pages."""

# Okabe and Ito, "Color Universal Design" (2008): distinct with all common colour blindnesses.
# Ordered by contrast, without their yellow, which is too faint for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LEFT_OUT_COLOUR = "#8A8A8A"
