"""Compiled loops of the rasteriser: coverage, shading and normals.

The functions take plain arrays, as numba compiles those; ``rasteriser.Scene`` packs them.
"""

import numba
import numpy as np


@numba.njit(cache=True)
def rasterise(x, y, depth, inverse_w, mesh, textures, buffers):
    """Fills nearest triangle and its perspective-correct barycentrics per sample."""
    triangles, material, uv = mesh
    texels, texture, cutout = textures
    z_buffer, triangle_buffer, first, second = buffers
    side = z_buffer.shape[0]
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = x[i], y[i], x[j], y[j], x[k], y[k]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        m = material[t]
        # Screen y points down, so an outward (counter-clockwise) triangle has a negative area.
        if abs(area) < 1e-9 or (area > 0 and cutout[m] == 0):
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(side - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(side - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        inverse_area = 1.0 / area
        for row in range(top, bottom + 1):
            py = row + 0.5
            for column in range(left, right + 1):
                px = column + 0.5
                a = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse_area
                b = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse_area
                c = 1.0 - a - b
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * depth[i] + b * depth[j] + c * depth[k]
                if z >= z_buffer[row, column]:
                    continue
                wa, wb, wc = a * inverse_w[i], b * inverse_w[j], c * inverse_w[k]
                norm = 1.0 / (wa + wb + wc)
                wa, wb = wa * norm, wb * norm
                wc = 1.0 - wa - wb
                if cutout[m] > 0:
                    u = wa * uv[i, 0] + wb * uv[j, 0] + wc * uv[k, 0]
                    v = wa * uv[i, 1] + wb * uv[j, 1] + wc * uv[k, 1]
                    width, height = texture[m, 1], texture[m, 2]
                    tx = min(int((u - np.floor(u)) * width), width - 1)
                    ty = min(int((1.0 - (v - np.floor(v))) * height), height - 1)
                    threshold = 0.5
                    if cutout[m] == 1:
                        threshold = 0.125 + 0.25 * ((column & 1) + 2 * (row & 1))
                    if texels[texture[m, 0] + ty * width + tx, 3] < threshold * 255:
                        continue
                z_buffer[row, column] = z
                triangle_buffer[row, column] = t
                first[row, column] = wa
                second[row, column] = wb


@numba.njit(cache=True, inline="always")
def _texel(texels, texture, m, u, v, channel_0):
    """Bilinear, linear-light RGB of material m at (u, v); no wrap between the edges."""
    offset, width, height = texture[m, 0], texture[m, 1], texture[m, 2]
    fu = (u - np.floor(u)) * width - 0.5
    fv = (1.0 - (v - np.floor(v))) * height - 0.5
    ui, vi = int(np.floor(fu)), int(np.floor(fv))
    du, dv = fu - ui, fv - vi
    u0, u1 = min(max(ui, 0), width - 1), min(max(ui + 1, 0), width - 1)
    v0, v1 = min(max(vi, 0), height - 1), min(max(vi + 1, 0), height - 1)
    p, q = offset + v0 * width + u0, offset + v0 * width + u1
    r, s = offset + v1 * width + u0, offset + v1 * width + u1
    upper = texels[p, channel_0] * (1 - du) + texels[q, channel_0] * du
    lower = texels[r, channel_0] * (1 - du) + texels[s, channel_0] * du
    value = (upper * (1 - dv) + lower * dv) / 255.0
    return value * value * (0.8 + 0.2 * value)


@numba.njit(cache=True, inline="always")
def _tone(value):
    """Soft shoulder, then display gamma of about 2."""
    return np.sqrt(value * (1 + value * 0.12) / (1 + value * 0.62))


@numba.njit(cache=True, inline="always")
def _mixed(values, corners, weights, axis):
    """A value of ``values (corners, n)`` inside a triangle."""
    (i, j, k), (a, b, c) = corners, weights
    return a * values[i, axis] + b * values[j, axis] + c * values[k, axis]


@numba.njit(cache=True, inline="always")
def _lit(colour, look, normal, view, open_sky, lights):
    """Linear RGB of a surface in ambient and directional light."""
    (red, green, blue), (shine, gloss, soft) = colour, look
    (nx, ny, nz), (vx, vy, vz) = normal, view
    directions, colours, ambient, _ = lights
    sky = open_sky * (0.75 + 0.25 * ny)
    r, g, b = red * ambient[0] * sky, green * ambient[1] * sky, blue * ambient[2] * sky
    shadow = min(1.0, 0.25 + 0.95 * open_sky) * min(1.0, 2.2 * open_sky)
    for n in range(directions.shape[0]):
        lx, ly, lz = directions[n, 0], directions[n, 1], directions[n, 2]
        facing = nx * lx + ny * ly + nz * lz
        wrap_r, wrap_g, wrap_b = 0.45 * soft, 0.2 * soft, 0.14 * soft
        r += red * shadow * colours[n, 0] * max((facing + wrap_r) / (1 + wrap_r), 0.0)
        g += green * shadow * colours[n, 1] * max((facing + wrap_g) / (1 + wrap_g), 0.0)
        b += blue * shadow * colours[n, 2] * max((facing + wrap_b) / (1 + wrap_b), 0.0)
        if facing > 0 and shine > 0:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            half = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
            across = max((nx * hx + ny * hy + nz * hz) * half, 0.0)
            glint = shadow * shine * across**gloss
            r += colours[n, 0] * glint
            g += colours[n, 1] * glint
            b += colours[n, 2] * glint
    return r, g, b


@numba.njit(cache=True)
def shade(buffers, mesh, attributes, textures, looks, lights, background, picture):
    """Lights every covered sample and averages the four samples of a pixel."""
    _, triangle_buffer, first, second = buffers
    triangles, material, uv = mesh
    position, normal, occlusion, cloth_height = attributes
    texels, texture, _ = textures
    tint, specular, gloss, softness = looks
    cloth = lights[3]
    for row in range(picture.shape[0]):
        for column in range(picture.shape[1]):
            red, green, blue = 0.0, 0.0, 0.0
            for sample in range(4):
                y, x = 2 * row + (sample >> 1), 2 * column + (sample & 1)
                t = triangle_buffer[y, x]
                if t < 0:
                    red += background[row, column, 0]
                    green += background[row, column, 1]
                    blue += background[row, column, 2]
                    continue
                a, b = first[y, x], second[y, x]
                w, m = (a, b, 1.0 - a - b), material[t]
                corners = (triangles[t, 0], triangles[t, 1], triangles[t, 2])
                nx, ny, nz = (_mixed(normal, corners, w, 0), _mixed(normal, corners, w, 1),
                              _mixed(normal, corners, w, 2))  # fmt: skip
                length = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
                nx, ny, nz = nx * length, ny * length, nz * length
                vx, vy, vz = (-_mixed(position, corners, w, 0), -_mixed(position, corners, w, 1),
                              -_mixed(position, corners, w, 2))  # fmt: skip
                length = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
                vx, vy, vz = vx * length, vy * length, vz * length
                if nx * vx + ny * vy + nz * vz < 0:
                    nx, ny, nz = -nx, -ny, -nz
                u, v = _mixed(uv, corners, w, 0), _mixed(uv, corners, w, 1)
                r0 = _texel(texels, texture, m, u, v, 0) * tint[m, 0]
                g0 = _texel(texels, texture, m, u, v, 1) * tint[m, 1]
                b0 = _texel(texels, texture, m, u, v, 2) * tint[m, 2]
                shine, soft = specular[m], softness[m]
                height = _mixed(cloth_height, corners, w, 0)
                if height < 0:
                    # A darker hem makes the collar read as an edge of cloth.
                    hem = 0.72 if height > -0.045 else 1.0
                    r0, g0, b0 = cloth[0] * hem, cloth[1] * hem, cloth[2] * hem
                    soft, shine = 0.0, 0.0
                open_sky = _mixed(occlusion, corners, w, 0)
                look = (shine, gloss[m], soft)
                view = (vx, vy, vz)
                r0, g0, b0 = _lit((r0, g0, b0), look, (nx, ny, nz), view, open_sky, lights)
                red, green, blue = red + _tone(r0), green + _tone(g0), blue + _tone(b0)
            picture[row, column, 0] = int(min(red * 63.75, 255.0))
            picture[row, column, 1] = int(min(green * 63.75, 255.0))
            picture[row, column, 2] = int(min(blue * 63.75, 255.0))


@numba.njit(cache=True)
def vertex_normals(vertices, triangles):
    """Area-weighted unit normals ``(vertices, 3)`` float32.

    Args:
        vertices: ``(vertices, 3)`` float32.
        triangles: ``(triangles, 3)`` int32 rows of ``vertices``, counter-clockwise from outside.
    """
    normals = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1]
        uz, wx = vertices[b, 2] - vertices[a, 2], vertices[c, 0] - vertices[a, 0]
        wy, wz = vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            normals[i, 0] += x
            normals[i, 1] += y
            normals[i, 2] += z
    for i in range(normals.shape[0]):
        squares = normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2
        length = 1.0 / np.sqrt(squares + 1e-20)
        normals[i, 0] *= length
        normals[i, 1] *= length
        normals[i, 2] *= length
    return normals


@numba.njit(cache=True)
def sources(buffers, triangles, is_inside, source, step, moved, known):
    """Where every ``step``-th sample comes from, minus where it is; ``known`` 0 off the mesh.

    Samples of the inside count as off the mesh.
    """
    _, triangle_buffer, first, second = buffers
    side = triangle_buffer.shape[0]
    for row in range(moved.shape[0]):
        for column in range(moved.shape[1]):
            y, x = row * step + step // 2, column * step + step // 2
            t = triangle_buffer[y, x]
            moved[row, column, 0] = moved[row, column, 1] = known[row, column] = 0.0
            if t < 0 or is_inside[t]:
                continue
            a, b = first[y, x], second[y, x]
            w, corners = (a, b, 1.0 - a - b), (triangles[t, 0], triangles[t, 1], triangles[t, 2])
            known[row, column] = 1.0
            moved[row, column, 0] = _mixed(source, corners, w, 0) - (x + 0.5) / side
            moved[row, column, 1] = _mixed(source, corners, w, 1) - (y + 0.5) / side


@numba.njit(cache=True, inline="always")
def _between(grid, x, y, channel):
    """Bilinear value of ``grid (n, n, channels)`` at fractions of its side."""
    side = grid.shape[0]
    fx = min(max(x * side - 0.5, 0.0), side - 1.001)
    fy = min(max(y * side - 0.5, 0.0), side - 1.001)
    column, row = int(fx), int(fy)
    dx, dy = fx - column, fy - row
    upper = grid[row, column, channel] * (1 - dx) + grid[row, column + 1, channel] * dx
    lower = grid[row + 1, column, channel] * (1 - dx) + grid[row + 1, column + 1, channel] * dx
    return upper * (1 - dy) + lower * dy


@numba.njit(cache=True)
def redraw(buffers, triangles, is_inside, corners, around, photo, picture):
    """Adds a moved photograph to the rendered inside of the mouth, in place.

    ``corners`` are source places, in fractions of the side, and shades of the triangles' corners;
    ``around`` says where samples off the mesh come from, relative to where they are.
    """
    _, triangle_buffer, first, second = buffers
    source, tone = corners
    side = triangle_buffer.shape[0]
    for row in range(picture.shape[0]):
        for column in range(picture.shape[1]):
            red, green, blue = 0.0, 0.0, 0.0
            for sample in range(4):
                y, x = 2 * row + (sample >> 1), 2 * column + (sample & 1)
                t = triangle_buffer[y, x]
                level = 1.0
                if t >= 0 and is_inside[t]:
                    continue
                if t >= 0:
                    a, b = first[y, x], second[y, x]
                    w = (a, b, 1.0 - a - b)
                    at = (triangles[t, 0], triangles[t, 1], triangles[t, 2])
                    u, v = _mixed(source, at, w, 0), _mixed(source, at, w, 1)
                    level = _mixed(tone, at, w, 0)
                else:
                    u, v = (x + 0.5) / side, (y + 0.5) / side
                    du, dv = _between(around, u, v, 0), _between(around, u, v, 1)
                    u, v = u + du, v + dv
                red += level * _between(photo, u, v, 0)
                green += level * _between(photo, u, v, 1)
                blue += level * _between(photo, u, v, 2)
            for channel, added in enumerate((red, green, blue)):
                value = int(picture[row, column, channel] + added / 4 + 0.5)
                picture[row, column, channel] = min(value, 255)
