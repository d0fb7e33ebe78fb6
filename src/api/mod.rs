//! HTTP: routes, bodies, errors.
