import { createBrowserRouter, type RouteObject } from 'react-router';
import { SignedInOnly, SignedOutOnly } from '@/auth/guards';
import { NotFound, ScreenError } from './errors';
import { Shell } from './shell';
import { Waiting } from './waiting';

/** A screen's module exports its component as `Component`; it is loaded when it is first gone to. */
function screen(path: string, load: NonNullable<RouteObject['lazy']>): RouteObject {
  return { path, lazy: load, ErrorBoundary: ScreenError, HydrateFallback: Waiting };
}

export const routes: RouteObject[] = [
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
          screen('/s/:session', () => import('@/screens/workspace')),
          screen('/s/:session/diff', () => import('@/screens/review')),
          screen('/settings/github', () => import('@/screens/github')),
          screen('/settings/*', () => import('@/screens/settings')),
          { path: '*', Component: NotFound },
        ],
      },
    ],
  },
];

export const router = createBrowserRouter(routes);
