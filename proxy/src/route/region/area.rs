//! Areas on the map: boxes and polygons, in degrees.
//!
//! A place on the edge of a box is inside; one on the edge of a polygon is on one side of it,
//! always the same. No area but a box reaches across the antimeridian.

/// An area.
#[derive(Debug, Clone, PartialEq)]
pub enum Area {
    /// Between two parallels and two meridians; across the antimeridian if west is beyond east.
    Box {
        /// Least latitude.
        south: f64,
        /// Greatest latitude.
        north: f64,
        /// Where it begins.
        west: f64,
        /// Where it ends.
        east: f64,
    },
    /// Corners as (latitude, longitude); the last one is joined to the first.
    Polygon(Vec<(f64, f64)>),
}

impl Area {
    /// Whether a place (latitude, longitude) lies in it.
    pub fn holds(&self, (latitude, longitude): (f64, f64)) -> bool {
        match self {
            Self::Box { south, north, west, east } => {
                let between = match west <= east {
                    true => *west <= longitude && longitude <= *east,
                    false => *west <= longitude || longitude <= *east,
                };
                *south <= latitude && latitude <= *north && between
            }
            Self::Polygon(corners) => {
                let before = corners.iter().cycle().skip(corners.len().saturating_sub(1));
                let crossed = corners.iter().zip(before).filter(|((a, b), (c, d))| {
                    // Edges that the place's parallel crosses east of it.
                    (*a > latitude) != (*c > latitude)
                        && longitude < (d - b) * (latitude - a) / (c - a) + b
                });
                crossed.count() % 2 == 1
            }
        }
    }
}
