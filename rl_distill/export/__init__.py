"""A student as an artefact to deploy, with a certificate of how far it is from the float model it was made from."""
