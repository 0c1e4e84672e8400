// Two WebGL programs for sigma. Threshold and dimming are uniforms, so that moving the slider or hovering a node
// touches no per-edge data: the vertex shader drops what lies below the threshold.
import { EdgeProgram, NodeProgram } from "sigma/rendering";
import { floatColor } from "sigma/utils";

const BIAS = "const float bias = 255.0 / 254.0;";

const EDGE_VERTEX = /* glsl */ `
attribute vec2 a_start;
attribute vec2 a_end;
attribute vec2 a_normal;
attribute vec4 a_color;
attribute float a_weight;
attribute float a_along;
attribute float a_side;
uniform mat3 u_matrix;
uniform float u_correctionRatio;
uniform float u_threshold;
uniform float u_alpha;
varying vec4 v_color;
varying float v_across;
varying float v_soft;
${BIAS}
void main() {
  if (a_weight < u_threshold) {
    gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
    return;
  }
  vec2 position = mix(a_start, a_end, a_along);
  float wanted = length(a_normal);
  float pixels = max(wanted, 0.6) + 1.0;
  vec2 unit = wanted > 0.0 ? a_normal / wanted : vec2(0.0);
  // sigma's correction ratio is half a screen pixel in graph units under the present camera.
  float thickness = pixels * u_correctionRatio * 2.0;
  gl_Position = vec4((u_matrix * vec3(position + unit * a_side * thickness, 1.0)).xy, 0.0, 1.0);
  v_across = a_side * pixels;
  v_soft = max(wanted, 0.6);
  v_color = a_color;
  v_color.a *= bias * u_alpha;
}`;

const EDGE_FRAGMENT = /* glsl */ `
precision mediump float;
varying vec4 v_color;
varying float v_across;
varying float v_soft;
void main() {
  float cover = clamp(v_soft + 0.5 - abs(v_across), 0.0, 1.0);
  gl_FragColor = v_color * v_color.a * cover;
  gl_FragColor.a = v_color.a * cover;
}`;

const NODE_VERTEX = /* glsl */ `
attribute vec4 a_id;
attribute vec4 a_color;
attribute vec2 a_position;
attribute float a_size;
attribute float a_best;
attribute float a_angle;
uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
uniform float u_threshold;
uniform float u_alpha;
varying vec4 v_color;
varying vec2 v_offset;
varying float v_radius;
varying float v_border;
${BIAS}
void main() {
  float size = a_size * u_correctionRatio / u_sizeRatio * 4.0;
  vec2 offset = size * vec2(cos(a_angle), sin(a_angle));
  gl_Position = vec4((u_matrix * vec3(a_position + offset, 1.0)).xy, 0.0, 1.0);
  v_offset = offset;
  v_radius = size / 2.0;
  v_border = u_correctionRatio / u_sizeRatio;
  #ifdef PICKING_MODE
  v_color = a_id;
  v_color.a *= bias;
  #else
  v_color = a_color;
  v_color.a *= bias * u_alpha * (a_best < u_threshold ? 0.28 : 1.0);
  #endif
}`;

const NODE_FRAGMENT = /* glsl */ `
precision highp float;
varying vec4 v_color;
varying vec2 v_offset;
varying float v_radius;
varying float v_border;
uniform float u_rim;
uniform vec3 u_background;
void main() {
  float away = length(v_offset);
  #ifdef PICKING_MODE
  if (away > v_radius) discard;
  gl_FragColor = v_color;
  #else
  float soft = v_border * u_rim;
  float cover = 1.0 - smoothstep(v_radius - soft, v_radius, away);
  // A rim parts discs that touch; on the smallest it would leave nothing of the disc.
  float rim = smoothstep(v_radius - 2.0 * soft, v_radius - soft, away) * smoothstep(3.0 * soft, 5.0 * soft, v_radius);
  vec3 shade = mix(v_color.rgb, u_background, rim * 0.9);
  float alpha = v_color.a * cover;
  gl_FragColor = vec4(shade * alpha, alpha);
  #endif
}`;

/** Edges as soft quads: width follows weight on the screen; `look` holds {threshold, edgeAlpha, nodeAlpha, background}. */
export function edgeProgram(look) {
  return class WeightedEdgeProgram extends EdgeProgram {
    getDefinition() {
      return {
        VERTICES: 6,
        VERTEX_SHADER_SOURCE: EDGE_VERTEX,
        FRAGMENT_SHADER_SOURCE: EDGE_FRAGMENT,
        METHOD: WebGLRenderingContext.TRIANGLES,
        UNIFORMS: ["u_matrix", "u_correctionRatio", "u_threshold", "u_alpha"],
        ATTRIBUTES: [
          { name: "a_start", size: 2, type: WebGLRenderingContext.FLOAT },
          { name: "a_end", size: 2, type: WebGLRenderingContext.FLOAT },
          { name: "a_normal", size: 2, type: WebGLRenderingContext.FLOAT },
          { name: "a_color", size: 4, type: WebGLRenderingContext.UNSIGNED_BYTE, normalized: true },
          { name: "a_weight", size: 1, type: WebGLRenderingContext.FLOAT },
        ],
        CONSTANT_ATTRIBUTES: [
          { name: "a_along", size: 1, type: WebGLRenderingContext.FLOAT },
          { name: "a_side", size: 1, type: WebGLRenderingContext.FLOAT },
        ],
        CONSTANT_DATA: [[0, 1], [0, -1], [1, 1], [1, 1], [0, -1], [1, -1]],
      };
    }

    processVisibleItem(_index, start, source, target, data) {
      const dx = target.x - source.x;
      const dy = target.y - source.y;
      const length = Math.hypot(dx, dy);
      const scale = length > 0 ? data.size / length : 0;
      const array = this.array;
      array[start] = source.x;
      array[start + 1] = source.y;
      array[start + 2] = target.x;
      array[start + 3] = target.y;
      array[start + 4] = -dy * scale;
      array[start + 5] = dx * scale;
      array[start + 6] = floatColor(data.color);
      array[start + 7] = data.weight;
    }

    setUniforms(params, { gl, uniformLocations: at }) {
      gl.uniformMatrix3fv(at.u_matrix, false, params.matrix);
      gl.uniform1f(at.u_correctionRatio, params.correctionRatio);
      gl.uniform1f(at.u_threshold, look.threshold);
      gl.uniform1f(at.u_alpha, look.edgeAlpha);
    }
  };
}

/** Discs with a thin rim in the background's colour; nodes whose best edge is below the threshold fade. */
export function nodeProgram(look) {
  return class StrengthNodeProgram extends NodeProgram {
    getDefinition() {
      const third = (2 * Math.PI) / 3;
      return {
        VERTICES: 3,
        VERTEX_SHADER_SOURCE: NODE_VERTEX,
        FRAGMENT_SHADER_SOURCE: NODE_FRAGMENT,
        METHOD: WebGLRenderingContext.TRIANGLES,
        UNIFORMS: ["u_matrix", "u_sizeRatio", "u_correctionRatio", "u_threshold", "u_alpha", "u_rim", "u_background"],
        ATTRIBUTES: [
          { name: "a_position", size: 2, type: WebGLRenderingContext.FLOAT },
          { name: "a_size", size: 1, type: WebGLRenderingContext.FLOAT },
          { name: "a_color", size: 4, type: WebGLRenderingContext.UNSIGNED_BYTE, normalized: true },
          { name: "a_id", size: 4, type: WebGLRenderingContext.UNSIGNED_BYTE, normalized: true },
          { name: "a_best", size: 1, type: WebGLRenderingContext.FLOAT },
        ],
        CONSTANT_ATTRIBUTES: [{ name: "a_angle", size: 1, type: WebGLRenderingContext.FLOAT }],
        CONSTANT_DATA: [[0], [third], [2 * third]],
      };
    }

    processVisibleItem(index, start, data) {
      const array = this.array;
      array[start] = data.x;
      array[start + 1] = data.y;
      array[start + 2] = data.size;
      array[start + 3] = floatColor(data.color);
      array[start + 4] = index;
      array[start + 5] = data.best;
    }

    setUniforms(params, { gl, uniformLocations: at }) {
      gl.uniformMatrix3fv(at.u_matrix, false, params.matrix);
      gl.uniform1f(at.u_sizeRatio, params.sizeRatio);
      gl.uniform1f(at.u_correctionRatio, params.correctionRatio);
      gl.uniform1f(at.u_threshold, look.threshold);
      gl.uniform1f(at.u_alpha, look.nodeAlpha);
      if (at.u_rim) gl.uniform1f(at.u_rim, 2.0 / params.pixelRatio);
      if (at.u_background) gl.uniform3fv(at.u_background, look.background);
    }
  };
}
