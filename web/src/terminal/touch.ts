/** A finger that moves over the terminal scrolls it, line by line: xterm.js itself knows no touch. */

import type { Terminal } from '@xterm/xterm';

/** Below this many pixels a finger is tapping. */
const SLOP = 8;
const SLOWDOWN = 0.95;
const SLOWEST = 0.3;

export function scrollByTouch(host: HTMLElement, terminal: Terminal): () => void {
  let last: { y: number; at: number } | null = null;
  let moving = false;
  let speed = 0;
  let frame = 0;

  let rest = 0;

  const scroll = ({ clientX, clientY }: Touch, pixels: number) => {
    const screen = host.querySelector('.xterm-screen');
    if (screen === null) return;
    const lineHeight = Math.max(screen.clientHeight / terminal.rows, 1);
    rest += pixels;
    const lines = Math.trunc(rest / lineHeight);
    rest -= lines * lineHeight;
    if (terminal.buffer.active.type === 'normal' && terminal.modes.mouseTrackingMode === 'none') {
      terminal.scrollLines(lines);
      return;
    }
    // A program has the whole screen, or the mouse: it is told what a wheel would tell it.
    const wheel = {
      deltaMode: WheelEvent.DOM_DELTA_LINE,
      deltaY: Math.sign(lines),
      clientX,
      clientY,
      bubbles: true,
      cancelable: true,
    };
    for (let line = 0; line < Math.abs(lines); line++) screen.dispatchEvent(new WheelEvent('wheel', wheel));
  };
  const stop = () => cancelAnimationFrame(frame);

  const start = (event: TouchEvent) => {
    stop();
    moving = false;
    speed = rest = 0;
    const touch = event.touches.length === 1 ? event.touches[0] : undefined;
    last = touch === undefined ? null : { y: touch.clientY, at: event.timeStamp };
  };
  const move = (event: TouchEvent) => {
    const touch = event.touches.length === 1 ? event.touches[0] : undefined;
    if (touch === undefined || last === null) {
      last = null;
      return;
    }
    const moved = last.y - touch.clientY;
    if (!moving && Math.abs(moved) < SLOP) return;
    moving = true;
    // Or the page would move too, and reload when it is pulled.
    event.preventDefault();
    scroll(touch, moved);
    speed = moved / Math.max((event.timeStamp - last.at) / 16, 1);
    last = { y: touch.clientY, at: event.timeStamp };
  };
  const end = (event: TouchEvent) => {
    const rested = last === null || event.timeStamp - last.at > 80;
    const touch = event.changedTouches[0];
    last = null;
    if (!moving || rested || touch === undefined) return;
    if (window.matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    const glide = () => {
      speed *= SLOWDOWN;
      if (Math.abs(speed) < SLOWEST) return;
      scroll(touch, speed);
      frame = requestAnimationFrame(glide);
    };
    frame = requestAnimationFrame(glide);
  };

  host.addEventListener('touchstart', start, { passive: true });
  host.addEventListener('touchmove', move, { passive: false });
  host.addEventListener('touchend', end);
  host.addEventListener('touchcancel', stop);
  return () => {
    stop();
    host.removeEventListener('touchstart', start);
    host.removeEventListener('touchmove', move);
    host.removeEventListener('touchend', end);
    host.removeEventListener('touchcancel', stop);
  };
}
