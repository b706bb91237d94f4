//! Packing records under the limits of a request.
