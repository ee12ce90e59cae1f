"""Videos as data sets: what models are trained and measured on."""
