"""What families share: the U-Net of images and its walk, the autoencoder of images, states of text and images."""
