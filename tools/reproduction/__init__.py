"""The paper's tables: their cells and the similarity of maps."""
