import type { ComponentType } from 'react';
import { createBrowserRouter, type RouteObject } from 'react-router';
import { SignedInOnly, SignedOutOnly } from '@/auth/guards';
import { fetchTerminals } from '@/terminal';
import { again } from './again';
import { NotFound, ScreenError } from './errors';
import { Shell } from './shell';
import { Waiting } from './waiting';

const loads: (() => Promise<unknown>)[] = [];

/** A screen's module exports its component as `Component`; it is loaded when it is first gone to. */
function screen(path: string, load: () => Promise<{ Component: ComponentType }>): RouteObject {
  loads.push(load);
  return { path, lazy: () => again(load), ErrorBoundary: ScreenError, HydrateFallback: Waiting };
}

export const routes: RouteObject[] = [
  {
    // Where mailed links lead to, whoever is signed in.
    ErrorBoundary: ScreenError,
    HydrateFallback: Waiting,
    children: [
      screen('/forgot-password', () => import('@/screens/auth/forgot')),
      screen('/reset-password', () => import('@/screens/auth/reset')),
      screen('/verify-email', () => import('@/screens/auth/verify')),
    ],
  },
  {
    Component: SignedOutOnly,
    ErrorBoundary: ScreenError,
    HydrateFallback: Waiting,
    children: [
      screen('/login', () => import('@/screens/auth/login')),
      screen('/register', () => import('@/screens/auth/register')),
    ],
  },
  {
    Component: SignedInOnly,
    ErrorBoundary: ScreenError,
    HydrateFallback: Waiting,
    children: [
      screen('/welcome', () => import('@/screens/onboarding')),
      {
        Component: Shell,
        ErrorBoundary: ScreenError,
        children: [
          screen('/', () => import('@/screens/home')),
          screen('/envs', () => import('@/screens/environments')),
          screen('/e/:env', () => import('@/screens/environment')),
          screen('/s/:session', () => {
            fetchTerminals();
            return import('@/screens/workspace');
          }),
          screen('/s/:session/diff', () => import('@/screens/review')),
          screen('/deployments/:deployment', () => import('@/screens/deployments')),
          screen('/agents', () => import('@/screens/agents')),
          screen('/agents/:agent', () => import('@/screens/agents/agent')),
          screen('/settings/github', () => import('@/screens/github')),
          screen('/settings/users', () => import('@/screens/admin/users')),
          screen('/settings/invitations', () => import('@/screens/admin/invitations')),
          screen('/settings/audit', () => import('@/screens/admin/audit')),
          screen('/settings/disk', () => import('@/screens/admin/disk')),
          screen('/settings/health', () => import('@/screens/health')),
          screen('/settings/*', () => import('@/screens/settings')),
          { path: '*', Component: NotFound },
        ],
      },
    ],
  },
];

/** Fetches all screens, so that the way to one is open when the network or the server is away. */
export function fetchScreens(): void {
  for (const load of loads) load().catch(() => undefined);
}

export const router = createBrowserRouter(routes);
