"""A video classifier made of an image network, which is applied to each frame. It serves as a teacher."""
