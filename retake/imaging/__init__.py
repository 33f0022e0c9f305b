"""Operations on pictures, masks and flow fields as NumPy arrays."""
