"""The fusion study: losses beside their controls, over task families, label noise and teachers' confidence."""
